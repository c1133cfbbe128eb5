// Keeps 64 MiB in Go's heap, says so, and waits for the end of its input.
package main

import (
	"fmt"
	"io"
	"os"
)

var kept [][]byte

func main() {
	for len(kept) < 1024 {
		block := make([]byte, 65536)
		for at := range block {
			block[at] = 1
		}
		kept = append(kept, block)
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	fmt.Println(len(kept))
}
