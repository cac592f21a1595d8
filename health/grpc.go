package health

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
)

// grpc asks for the health of one service of a gRPC server, or of the whole,
// by the protocol grpc.health.v1 over HTTP/2.
type grpc struct {
	request []byte      // a HealthCheckRequest in its frame
	tls     *tls.Config // nil: not encrypted
}

func newGRPC(o *Options) (Check, error) { return &grpc{request: healthRequest(o.Service)}, nil }

func newGRPCS(o *Options) (Check, error) {
	config, err := o.TLS.client(o.Host, "h2")
	if err != nil {
		return nil, err
	}
	return &grpc{request: healthRequest(o.Service), tls: config}, nil
}

// healthRequest has the service in its only field, the first, and before it
// the frame of gRPC: not compressed, and the length.
func healthRequest(service string) []byte {
	var message []byte
	if service != "" {
		message = append(message, 1<<3|2)
		message = binary.AppendUvarint(message, uint64(len(service)))
		message = append(message, service...)
	}
	frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	return append(frame, message...)
}

func (c *grpc) Check(ctx context.Context, to Target) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(c.tls != nil)
	protocols.SetUnencryptedHTTP2(c.tls == nil)
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) { return to.dial(ctx, network) }
	transport := &http.Transport{
		Protocols: protocols, DisableCompression: true, TLSClientConfig: c.tls, DialContext: dial,
		MaxResponseHeaderBytes: maxAnswer,
	}
	defer transport.CloseIdleConnections()
	scheme := "http"
	if c.tls != nil {
		scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, scheme+"://"+to.Addr.String()+"/grpc.health.v1.Health/Check", bytes.NewReader(c.request))
	if err != nil {
		return err
	}
	req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "User-Agent": {userAgent}}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
			return err
		}
		// A server of HTTP/1.1 may answer in clear or close while we still
		// write, so the cause alone can be no more than a broken pipe.
		return fmt.Errorf("no HTTP/2 answer: %w", err)
	}
	defer resp.Body.Close()
	return judgeGRPC(resp)
}

func judgeGRPC(resp *http.Response) error {
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	trailer := resp.Trailer
	if trailer.Get("Grpc-Status") == "" {
		trailer = resp.Header // an answer of errors only has them in front
	}
	if status := trailer.Get("Grpc-Status"); status != "0" {
		if n, err := strconv.Atoi(status); err == nil && n < len(grpcCodes) {
			status = grpcCodes[n]
		}
		return fmt.Errorf("gRPC status %s: %s", status, trailer.Get("Grpc-Message"))
	}
	serving, err := servingStatus(body)
	if err != nil {
		return err
	}
	if serving != "SERVING" {
		return fmt.Errorf("the server says %s", serving)
	}
	return nil
}

// grpcCodes are the names of gRPC's status codes, by number.
var grpcCodes = []string{"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
	"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL",
	"UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"}

// servingStatuses are those of a HealthCheckResponse, by number.
var servingStatuses = []string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}

var errNoHealth = errors.New("no HealthCheckResponse in the answer")

// servingStatus reads the frame of a HealthCheckResponse, whose only field, the
// first, is the status. A field that is not there is zero.
func servingStatus(frame []byte) (string, error) {
	if len(frame) < 5 || frame[0] != 0 || uint64(binary.BigEndian.Uint32(frame[1:])) != uint64(len(frame)-5) {
		return "", errNoHealth
	}
	message := frame[5:]
	if len(message) == 0 {
		return servingStatuses[0], nil
	}
	if message[0] != 1<<3 {
		return "", errNoHealth
	}
	n, size := binary.Uvarint(message[1:])
	if size <= 0 || size != len(message)-1 || n >= uint64(len(servingStatuses)) {
		return "", errNoHealth
	}
	return servingStatuses[n], nil
}
