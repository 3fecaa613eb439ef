// Servers in Go, with a goroutine for each connection.
//
//	goecho echo PORT|/PATH
//	goecho udp PORT
//	goecho file PORT FILE
package main

import (
	"io"
	"log"
	"net"
	"os"
	"strings"
)

func main() {
	if len(os.Args) < 3 {
		log.Fatal("usage: goecho echo|udp|file ADDRESS [FILE]")
	}
	switch mode, address := os.Args[1], os.Args[2]; mode {
	case "echo":
		serve(listen(address), echo)
	case "file":
		serve(listen(address), func(connection net.Conn) { send(connection, os.Args[3]) })
	case "udp":
		echoDatagrams(address)
	}
}

func listen(address string) net.Listener {
	network := "unix"
	if !strings.HasPrefix(address, "/") {
		network, address = "tcp4", "127.0.0.1:"+address
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		log.Fatal(err)
	}
	return listener
}

func serve(listener net.Listener, handle func(net.Conn)) {
	for {
		if connection, err := listener.Accept(); err == nil {
			go handle(connection)
		}
	}
}

// A message whose first byte is Q is echoed and the connection closed.
func echo(connection net.Conn) {
	defer connection.Close()
	buffer := make([]byte, 4096)
	for {
		length, err := connection.Read(buffer)
		if err != nil {
			return
		}
		last := buffer[0] == 'Q'
		if _, err = connection.Write(buffer[:length]); err != nil || last {
			return
		}
	}
}

func send(connection net.Conn, path string) {
	defer connection.Close()
	file, err := os.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	io.Copy(connection, file)
}

func echoDatagrams(port string) {
	address, err := net.ResolveUDPAddr("udp4", "127.0.0.1:"+port)
	if err != nil {
		log.Fatal(err)
	}
	socket, err := net.ListenUDP("udp4", address)
	if err != nil {
		log.Fatal(err)
	}
	buffer := make([]byte, 8192)
	for {
		if length, peer, err := socket.ReadFromUDPAddrPort(buffer); err == nil {
			socket.WriteToUDPAddrPort(buffer[:length], peer)
		}
	}
}
