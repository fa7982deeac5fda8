module marathon-gateway

go 1.26
