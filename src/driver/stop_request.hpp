#pragma once

namespace reap {

/// From now on SIGUSR1 and SIGTERM ask the job to save its state and stop. Without this call SIGUSR1 ends the process,
/// and so does SIGTERM.
void install_stop_handlers();

/// Whether this process was asked to. Open to any thread.
bool stop_requested();

/// From now on SIGTERM leaves it to the one who watches this descriptor (it can be read from then) to call
/// obey_termination.
int watch_for_termination();

/// Whether SIGTERM asks this process to stop.
bool terminations_are_requests();

/// Ends the process as SIGTERM does.
void obey_termination();

/// The end of watching: SIGTERM ends the process again by itself.
void stop_watching_for_termination();

}  // namespace reap
