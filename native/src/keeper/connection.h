// The connection of the mount in the kernel.
#pragma once

namespace keeper {

// poll(2): it was unmounted, or its connection was ended.
bool isUnmounted();

// Ends it: all calls that wait get an error, and all that wait for their pages go on. 0, or an errno; ENODATA: the journal does not have its number.
int abortConnection();

}  // namespace keeper
