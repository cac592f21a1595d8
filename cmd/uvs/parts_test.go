package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestPartsStopInReverseOrder(t *testing.T) {
	var ended []string
	until := func(name string) part {
		return part{name, func(ctx context.Context) error {
			<-ctx.Done()
			ended = append(ended, name) // each ends before the next is stopped
			return nil
		}}
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := startParts(ctx, func() {}, []part{until("first"), until("second"), until("third")})
	cancel()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if want := []string{"third", "second", "first"}; !slices.Equal(ended, want) {
		t.Errorf("ended %v, want %v", ended, want)
	}
}

func TestAPartThatFailsEndsTheRest(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := startParts(ctx, cancel, []part{
		{"sound", func(ctx context.Context) error { <-ctx.Done(); return nil }},
		{"sick", func(context.Context) error { return errors.New("lost its device") }},
	})
	<-ctx.Done()
	if err := r.stop(); err == nil || !strings.Contains(err.Error(), "sick: lost its device") {
		t.Errorf("error %v", err)
	}
}
