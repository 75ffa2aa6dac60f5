package bus_test

import (
	"testing"

	"parley/internal/bus"
	"parley/internal/bus/bustest"
)

func TestLocal(t *testing.T) {
	t.Parallel()
	bustest.Run(t, func(t *testing.T) bus.Bus {
		b := bus.NewLocal()
		t.Cleanup(func() {
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
		return b
	})
}

func BenchmarkPublish(b *testing.B) {
	for name, listeners := range map[string]int{"nobody": 0, "one": 1} {
		b.Run(name, func(b *testing.B) {
			l := bus.NewLocal()
			for range listeners {
				l.Subscribe("sig.conv_01JD3ZK8B9Q2W5T7Y4X6V8N1M0", func([]byte) {})
			}
			data := []byte("x")
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					l.Publish("sig.conv_01JD3ZK8B9Q2W5T7Y4X6V8N1M0", data)
				}
			})
		})
	}
}
