package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"
)

// Fetch asks the director behind the unix socket for path and decodes its
// answer into v. A *json.RawMessage takes it as it came.
func Fetch(ctx context.Context, socket, path string, v any) error {
	return ask(ctx, socket, http.MethodGet, path, nil, v)
}

// Send asks the director behind the unix socket to do something, by POST or
// DELETE, with request as the body.
func Send(ctx context.Context, socket, method, path string, request any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	return ask(ctx, socket, method, path, bytes.NewReader(body), new(json.RawMessage))
}

func ask(ctx context.Context, socket, method, path string, body io.Reader, v any) error {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, method, "http://uvs"+path, body)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return dialError(socket, err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("director at %s: %w", socket, err)
	}
	if resp.StatusCode == http.StatusUnprocessableEntity {
		return errors.New(strings.TrimSpace(string(got)))
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("director at %s: %s: %s", socket, resp.Status, strings.TrimSpace(string(got)))
	}
	if err := json.Unmarshal(got, v); err != nil {
		return fmt.Errorf("director at %s: %w", socket, err)
	}
	return nil
}

func dialError(socket string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no director runs at %s; start one with uvs run -c FILE, or say where it is with --socket or UVS_SOCKET", socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s may not be opened: run as root or as a member of its group", socket)
	}
	return fmt.Errorf("director at %s: %w", socket, err)
}
