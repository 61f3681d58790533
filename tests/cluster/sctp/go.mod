module netverdict.io/tests/sctp

go 1.24.0
