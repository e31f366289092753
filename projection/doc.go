// Package projection is the contract of the read side: projections, reactions, and the sources that they read.
//
// A [Projection] builds a read model, a [Reaction] runs commands or other effects. Both read a [Source]. The stores of packages
// sqlite and postgres run them, and those of package memory in tests; [Admin] has the methods that manage them.
package projection
