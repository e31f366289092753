package sqlite_test

const roleVariable = "ES_SQLITE_ROLE"

func play(role string) {}
