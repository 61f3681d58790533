// Runs inside a pod: makes all connections of a batch at once, and says which succeeded. It takes and gives what cyclonus'
// own worker does, which starts a program for each connection.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const timeout = time.Second

// What cyclonus sends. Its own types would make this program twenty times as large.
type batch struct {
	Requests []*request
}

type request struct {
	Key      string
	Protocol string
	Host     string
	Port     int
}

// What it expects.
type result struct {
	Request *request
	Error   string
}

func main() {
	jobs := flag.String("jobs", "", "batch of connections, as JSON")
	flag.Parse()
	var connections batch
	if err := json.Unmarshal([]byte(*jobs), &connections); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	results := make([]result, len(connections.Requests))
	var waiting sync.WaitGroup
	for i, request := range connections.Requests {
		waiting.Add(1)
		go func() {
			defer waiting.Done()
			results[i] = result{Request: request}
			if err := connect(request); err != nil {
				results[i].Error = err.Error()
			}
		}()
	}
	waiting.Wait()
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		os.Exit(1)
	}
}

// An error if nothing answers within a second. A UDP server that says who it is has answered.
func connect(request *request) error {
	deadline := time.Now().Add(timeout)
	connection, err := net.DialTimeout(strings.ToLower(request.Protocol), net.JoinHostPort(request.Host, strconv.Itoa(request.Port)), timeout)
	if err != nil {
		return err
	}
	defer connection.Close()
	if err := connection.SetDeadline(deadline); err != nil {
		return err
	}
	if request.Protocol == "UDP" {
		if _, err := connection.Write([]byte("hello\n")); err != nil {
			return err
		}
		_, err = connection.Read(make([]byte, 1024))
	}
	return err
}
