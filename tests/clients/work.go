package main

import (
	"fmt"
	"io"
	"log"
	"os"
)

// work is that of the examples: note that it has begun, then hang if there is a file that says so.
func work(job []byte) {
	worked, err := os.OpenFile("worked", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0600)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprintf(worked, "%s\n", job)
	worked.Close()
	if _, err := os.Stat("hang"); err == nil {
		io.ReadAll(os.Stdin)
	}
}
