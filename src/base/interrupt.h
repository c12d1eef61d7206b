// Ctrl-C: noted by a flag that long loops poll, so that partial results are written and marked.
#pragma once

namespace qwenbench {

/// From now on SIGINT and SIGTERM set the flag; a second one ends the process at once (exit 130).
void install_interrupt_handler();

bool interrupted();

/// For tests.
void set_interrupted(bool value);

}  // namespace qwenbench
