// Echoes a line of each client.
package main

import (
	"bufio"
	"fmt"
	"net"
)

func main() {
	listener, err := net.Listen("tcp", "10.0.0.2:9000")
	if err != nil {
		panic(err)
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		go func() {
			line, _ := bufio.NewReader(connection).ReadString('\n')
			fmt.Fprintf(connection, "go says %s", line)
			connection.Close()
		}()
	}
}
