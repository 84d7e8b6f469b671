// Hello is what the bed's own test runs in a pod: it says who it is, and tells what the pod can
// reach and read.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		name, _ := os.Hostname()
		fmt.Fprintln(w, name)
	})
	http.HandleFunc("/resolve", func(w http.ResponseWriter, r *http.Request) {
		found, err := net.LookupHost(r.FormValue("name"))
		answer(w, strings.Join(found, " "), err)
	})
	http.HandleFunc("/dial", func(w http.ResponseWriter, r *http.Request) {
		connection, err := net.DialTimeout("tcp", r.FormValue("to"), 2*time.Second)
		if err == nil {
			err = connection.Close()
		}
		answer(w, "reached", err)
	})
	http.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) {
		content, err := os.ReadFile(r.FormValue("path"))
		answer(w, string(content), err)
	})
	http.HandleFunc("/write", func(w http.ResponseWriter, r *http.Request) {
		answer(w, "written", os.WriteFile(r.FormValue("path"), []byte("x"), 0o600))
	})
	log.Fatal(http.ListenAndServe(":8080", nil))
}

// The error is part of a good answer: the asker wants to know what the pod cannot do.
func answer(w http.ResponseWriter, good string, err error) {
	if err != nil {
		good = "error: " + err.Error()
	}
	fmt.Fprintln(w, good)
}
