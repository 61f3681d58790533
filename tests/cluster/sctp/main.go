// Takes the place of agnhost in a pod where the kernel has no SCTP: begins and answers associations over raw sockets, and
// leaves everything else to agnhost itself, which is beside it as `/agnhost.real`.
//
// A client sends INIT and a server answers with INIT ACK (RFC 9260, section 5.1): what a policy is asked about. The
// association is not carried further.
package main

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	real       = "/agnhost.real"
	portPrefix = "SERVE_SCTP_PORT_"
	retry      = 500 * time.Millisecond

	headerLength = 12
	chunkInit    = 1
	chunkInitAck = 2
)

func main() {
	var err error
	switch {
	case len(os.Args) > 2 && os.Args[1] == "connect" && connectsOverSctp(os.Args[2:]):
		err = connect(os.Args[2:])
	case len(os.Args) > 1 && os.Args[1] == "porter" && len(ports()) > 0:
		err = serve(ports())
	default:
		err = syscall.Exec(real, os.Args, os.Environ())
	}
	if err != nil {
		// In the words of agnhost, which its callers look for.
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func connectsOverSctp(arguments []string) bool {
	for _, argument := range arguments {
		if strings.TrimLeft(argument, "-") == "protocol=sctp" {
			return true
		}
	}
	return false
}

// The ports to serve, as the environment of agnhost's `porter` names them.
func ports() []uint16 {
	var ports []uint16
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if text, found := strings.CutPrefix(name, portPrefix); found {
			if port, err := strconv.ParseUint(text, 10, 16); err == nil {
				ports = append(ports, uint16(port))
			}
		}
	}
	return ports
}

func connect(arguments []string) error {
	flags := flag.NewFlagSet("connect", flag.ContinueOnError)
	timeout := flags.Duration("timeout", 10*time.Second, "")
	flags.String("protocol", "", "")
	// Flags may come after the address.
	var address string
	for len(arguments) > 0 {
		if err := flags.Parse(arguments); err != nil {
			return err
		}
		if arguments = flags.Args(); len(arguments) > 0 {
			address, arguments = arguments[0], arguments[1:]
		}
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return err
	}
	peer, err := net.ResolveIPAddr("ip", host)
	if err != nil {
		return errors.New("DNS")
	}
	socket, err := listen(peer.IP.To4() == nil)
	if err != nil {
		return err
	}
	source, tag := uint16(32768+rand.IntN(28000)), rand.Uint32()
	request := packet(source, uint16(port), 0, chunk(chunkInit, tag, nil))
	until := time.Now().Add(*timeout)
	for time.Now().Before(until) {
		if _, err := socket.WriteTo(request, peer); err != nil {
			return err
		}
		if answered(socket, peer.IP, uint16(port), source, tag, earlier(until, time.Now().Add(retry))) {
			return nil
		}
	}
	return errors.New("TIMEOUT")
}

func answered(socket net.PacketConn, peer net.IP, from, to uint16, tag uint32, until time.Time) bool {
	buffer := make([]byte, 2048)
	if socket.SetReadDeadline(until) != nil {
		return false
	}
	for {
		length, sender, err := socket.ReadFrom(buffer)
		if err != nil {
			return false
		}
		received := buffer[:length]
		if address, ok := sender.(*net.IPAddr); ok && address.IP.Equal(peer) && isChunk(received, chunkInitAck) &&
			binary.BigEndian.Uint16(received) == from && binary.BigEndian.Uint16(received[2:]) == to &&
			binary.BigEndian.Uint32(received[4:]) == tag {
			return true
		}
	}
}

func serve(ports []uint16) error {
	failed := make(chan error)
	for _, version6 := range []bool{false, true} {
		socket, err := listen(version6)
		if err != nil {
			return err
		}
		go func() { failed <- answer(socket, ports) }()
	}
	return <-failed
}

func answer(socket net.PacketConn, ports []uint16) error {
	buffer := make([]byte, 2048)
	for {
		length, sender, err := socket.ReadFrom(buffer)
		if err != nil {
			return err
		}
		received := buffer[:length]
		if !isChunk(received, chunkInit) {
			continue
		}
		from, to := binary.BigEndian.Uint16(received), binary.BigEndian.Uint16(received[2:])
		tag := binary.BigEndian.Uint32(received[headerLength+4:])
		for _, port := range ports {
			if port == to {
				// A state cookie, which nobody will send back.
				cookie := []byte{0, 7, 0, 8, 0, 0, 0, 0}
				// A sender that is gone needs no answer.
				_, _ = socket.WriteTo(packet(to, from, tag, chunk(chunkInitAck, rand.Uint32(), cookie)), sender)
			}
		}
	}
}

func listen(version6 bool) (net.PacketConn, error) {
	network := "ip4:132"
	if version6 {
		network = "ip6:132"
	}
	return net.ListenPacket(network, "")
}

func isChunk(packet []byte, kind byte) bool {
	return len(packet) >= headerLength+20 && packet[headerLength] == kind
}

// INIT or INIT ACK.
func chunk(kind byte, tag uint32, parameters []byte) []byte {
	chunk := make([]byte, 20, 20+len(parameters))
	chunk[0] = kind
	binary.BigEndian.PutUint16(chunk[2:], uint16(20+len(parameters)))
	binary.BigEndian.PutUint32(chunk[4:], tag)
	binary.BigEndian.PutUint32(chunk[8:], 65536)          // window
	binary.BigEndian.PutUint16(chunk[12:], 1)             // streams out
	binary.BigEndian.PutUint16(chunk[14:], 1)             // streams in
	binary.BigEndian.PutUint32(chunk[16:], rand.Uint32()) // first number
	return append(chunk, parameters...)
}

func packet(source, destination uint16, tag uint32, chunk []byte) []byte {
	packet := make([]byte, headerLength, headerLength+len(chunk))
	binary.BigEndian.PutUint16(packet, source)
	binary.BigEndian.PutUint16(packet[2:], destination)
	binary.BigEndian.PutUint32(packet[4:], tag)
	packet = append(packet, chunk...)
	binary.LittleEndian.PutUint32(packet[8:], crc32.Checksum(packet, crc32.MakeTable(crc32.Castagnoli)))
	return packet
}

func earlier(one, other time.Time) time.Time {
	if one.Before(other) {
		return one
	}
	return other
}
