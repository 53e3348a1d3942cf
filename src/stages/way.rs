//! The future of a stage that only decides: ended here, handed onward, or (rarely) waiting first.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::refusal::Refusal;
use crate::stages::Reply;

/// A boxed future of a stage that truly waits.
pub type Waiting = Pin<Box<dyn Future<Output = Result<Reply, Refusal>> + Send>>;

pin_project! {
    /// What became of a request at one stage. Only [`Way::Waits`] allocates.
    #[project = WayProjection]
    #[expect(missing_docs, reason = "the macro takes no documentation on fields of variants")]
    pub enum Way<F> {
        /// The stage answered itself.
        Ended { result: Option<Result<Reply, Refusal>> },
        /// The next stage has it.
        Onward { #[pin] inner: F },
        /// The stage has to wait before it knows.
        Waits { waiting: Waiting },
    }
}

impl<F> Way<F> {
    /// Ends here with a refusal.
    pub fn refused(refusal: Refusal) -> Self {
        Self::Ended { result: Some(Err(refusal)) }
    }

    /// Ends here with an answer.
    pub fn answered(reply: Reply) -> Self {
        Self::Ended { result: Some(Ok(reply)) }
    }

    /// Goes on with the next stage's future.
    pub fn onward(inner: F) -> Self {
        Self::Onward { inner }
    }

    /// Waits for `future`.
    pub fn waits(future: impl Future<Output = Result<Reply, Refusal>> + Send + 'static) -> Self {
        Self::Waits { waiting: Box::pin(future) }
    }
}

impl<F> Future for Way<F>
where
    F: Future<Output = Result<Reply, Refusal>>,
{
    type Output = Result<Reply, Refusal>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            WayProjection::Ended { result } => match result.take() {
                Some(result) => Poll::Ready(result),
                None => Poll::Pending,
            },
            WayProjection::Onward { inner } => inner.poll(cx),
            WayProjection::Waits { waiting } => waiting.as_mut().poll(cx),
        }
    }
}
