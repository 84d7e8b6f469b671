module stationmaster.dev/e2e/testbed/guest

go 1.26.0
