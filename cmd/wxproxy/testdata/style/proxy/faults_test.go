package proxy

import "time"

func wait() {
	time.Sleep(time.Millisecond)
}
