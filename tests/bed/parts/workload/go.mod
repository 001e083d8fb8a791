module bootc.dev/bed/workload

go 1.24
