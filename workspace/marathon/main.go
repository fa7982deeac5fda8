// Command marathon-gateway offers Marathon's REST API over Docker Swarm. Its
// state is in ZooKeeper, as Marathon's is; one of several gateways leads, the
// others pass requests on to it.
package main

import (
	"context"
	"log"
	"os"
	"os/signal"
	"syscall"

	"marathon-gateway/gateway"
)

func main() {
	log.SetFlags(0) // the journal has the time
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := gateway.Run(ctx, os.Args[1:], gateway.Options{}); err != nil {
		log.Fatal(err)
	}
}
