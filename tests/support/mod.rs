//! What the tests share.

use sockserver::ServerHandle;

/// Stops a server when the test ends, however it ends: a test that fails beside
/// a server that serves would wait for it instead of telling.
pub(crate) struct StopAtEnd(pub(crate) ServerHandle);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        let _ = self.0.request_shutdown();
    }
}
