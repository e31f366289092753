package server

// In names another database of the same server.
var In = in
