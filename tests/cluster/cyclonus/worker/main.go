// Runs inside a pod: makes all connections of a batch at once, and says which succeeded. It takes and gives what cyclonus'
// own worker does, which starts a program for each connection.
package main

import (
	"context"
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

const (
	timeout = time.Second
	// Hundreds of pods' names are asked for at a moment, which is no part of a connection's second.
	resolveWithin = 10 * time.Second
)

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
	addresses := resolve(connections.Requests)
	results := make([]result, len(connections.Requests))
	var waiting sync.WaitGroup
	for i, request := range connections.Requests {
		waiting.Add(1)
		go func() {
			defer waiting.Done()
			results[i] = result{Request: request}
			if err := connect(request, addresses[request.Host]); err != nil {
				results[i].Error = err.Error()
			}
		}()
	}
	waiting.Wait()
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		os.Exit(1)
	}
}

// The address of each host, asked for once; none for a name that nobody answers for.
func resolve(requests []*request) map[string]string {
	hosts := map[string]bool{}
	for _, request := range requests {
		hosts[request.Host] = true
	}
	addresses := map[string]string{}
	var lock sync.Mutex
	var waiting sync.WaitGroup
	for host := range hosts {
		waiting.Add(1)
		go func() {
			defer waiting.Done()
			if net.ParseIP(host) != nil {
				lock.Lock()
				defer lock.Unlock()
				addresses[host] = host
				return
			}
			limit, cancel := context.WithTimeout(context.Background(), resolveWithin)
			defer cancel()
			// With a dot it is the whole name, and no domain is tried before.
			found, err := net.DefaultResolver.LookupHost(limit, host+".")
			if err == nil {
				lock.Lock()
				defer lock.Unlock()
				addresses[host] = found[0]
			}
		}()
	}
	waiting.Wait()
	return addresses
}

// An error if nothing answers within a second. A UDP server that says who it is has answered.
func connect(request *request, address string) error {
	if address == "" {
		return fmt.Errorf("%s is not known", request.Host)
	}
	connection, err := net.DialTimeout(strings.ToLower(request.Protocol), net.JoinHostPort(address, strconv.Itoa(request.Port)), timeout)
	if err != nil {
		return err
	}
	defer connection.Close()
	if request.Protocol == "UDP" {
		// From now on: on a busy machine its second could be over before the packet is sent.
		if err := connection.SetDeadline(time.Now().Add(timeout)); err != nil {
			return err
		}
		if _, err := connection.Write([]byte("hello\n")); err != nil {
			return err
		}
		_, err = connection.Read(make([]byte, 1024))
	}
	return err
}
