package bolt

// Guard is tested by itself: a disk that fails to deliver a page cannot be had in a test.
var Guard = guard
