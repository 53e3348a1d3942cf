//! Circuit breakers.

use super::{At, Check};
use crate::config::breaker::{Breaker, BreakerFile};
use crate::config::problem::Fault;

impl Check<'_> {
    pub(super) fn breaker(&mut self, at: &At, written: &BreakerFile) -> Breaker {
        let open = self.positive(&at.key("open"), written.open);
        let open_max = self.positive(&at.key("open_max"), written.open_max);
        if open_max < open {
            let fault = Fault::new("shorter than open, the shortest time calls are held back");
            self.wrong(&at.key("open_max"), fault.hint("use at least as long as open"));
        }
        if written.ratio.0.0 == 0 {
            let fault = Fault::new("calls would be held back although none has failed");
            self.wrong(&at.key("ratio"), fault.hint("use a share of calls that failed, such as 50%"));
        }
        Breaker {
            mode: written.mode,
            window: self.positive(&at.key("window"), written.window),
            minimum: written.minimum.as_u32(),
            ratio: u32::from(written.ratio.0.0.div_ceil(10)),
            open,
            open_max,
            ramp: self.positive(&at.key("ramp"), written.ramp),
        }
    }
}
