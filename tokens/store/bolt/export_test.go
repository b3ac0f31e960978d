package bolt

// CatchFaults is tested on its own, because no test can make a disk fail.
var CatchFaults = catchFaults
