// testcontainers-go's reset: Snapshot and Restore of its postgres module, the
// module's own code, run against the cluster of the bench.
//
//	testcontainers DATABASE
//
// The module reaches the server through the Container that it was given; what is
// put in its place here says nothing but where the server is.  So the figure is
// that of its SQL, without a container's network in between.  Its fields can be
// set from outside only by reflection: its constructor wants a Docker engine.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"reflect"
	"runtime/debug"
	"strings"
	"unsafe"

	_ "github.com/lib/pq"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/modules/postgres"
)

// The driver takes PGHOST and PGPORT, a unix socket, where the address is empty.
type place struct{ testcontainers.Container }

func (place) PortEndpoint(context.Context, string, string) (string, error) { return "", nil }

func set(container *postgres.PostgresContainer, field, value string) {
	place := reflect.ValueOf(container).Elem().FieldByName(field)
	reflect.NewAt(place.Type(), unsafe.Pointer(place.UnsafeAddr())).Elem().SetString(value)
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == "github.com/testcontainers/testcontainers-go/modules/postgres" {
				return strings.TrimPrefix(module.Version, "v")
			}
		}
	}
	return "unknown"
}

func answer(err error) {
	if err != nil {
		fmt.Println("error:", strings.SplitN(err.Error(), "\n", 2)[0])
		return
	}
	fmt.Println("ok")
}

func main() {
	ctx := context.Background()
	container := &postgres.PostgresContainer{Container: place{}}
	for field, value := range map[string]string{
		"dbName": os.Args[1], "user": os.Getenv("PGUSER"), "password": "none",
		"sqlDriverName": "postgres", "snapshotName": "migrated_template",
	} {
		set(container, field, value)
	}
	if err := container.Snapshot(ctx); err != nil {
		answer(err)
		return
	}
	fmt.Println("ready", version())
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		answer(container.Restore(ctx))
	}
}
