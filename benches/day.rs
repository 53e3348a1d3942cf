//! Busy days in virtual time: how many of an org's calls are not made, and by which means.
//!
//! ```text
//! cargo bench --bench day                  one day by how it was answered, and others at other rates and with other tastes
//! cargo bench --bench day -- --minutes 5   shorter days
//! ```
//!
//! What a day is made of is told in `tests/cache_day.rs`, where a short one is a test. Gateway and simulated Salesforce share one
//! paused runtime without a thread, a socket or a clock, so that the figures do not depend on the machine.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a day that cannot go on has failed")]
#![allow(clippy::pedantic, clippy::disallowed_methods, reason = "shared with tests, which are read for their promise")]

#[path = "../tests/cache_day.rs"]
mod cache_day;
#[path = "../tests/client.rs"]
#[allow(dead_code, reason = "tests need more of it")]
mod client;
#[path = "../tests/world.rs"]
#[allow(dead_code, reason = "tests need more of it")]
mod world;

use std::time::Duration;

use cache_day::{Book, Day, Written, spend};
use clap::Parser;

/// Objects of which Salesforce itself changes some along with others.
const TOGETHER: [Written; 3] = [("Account", "Website"), ("Contact", "Title"), ("Opportunity", "Name")];

/// Spends days.
#[derive(Parser)]
struct Cli {
    /// How long each day is.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Where chance begins.
    #[arg(long, default_value_t = Day::default().seed)]
    seed: u64,
    /// Leave out all but the first day.
    #[arg(long)]
    one: bool,
    /// Passed by `cargo bench`; without it nothing is measured.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let cli = Cli::parse();
    if !cli.bench {
        println!("nothing measured: run `cargo bench --bench day`");
        return;
    }
    let day = Day { seed: cli.seed, length: Duration::from_mins(cli.minutes), ..Day::default() };
    spent(day).expect_at_most(&day, 1.0);
    if cli.one {
        return;
    }
    println!("\nThe same for objects of which Salesforce changes some along with others:\n");
    let together = Day { objects: TOGETHER, ..day };
    spent(together).expect_at_most(&together, 1.0);
    println!("\n| share of writes | from memory | 304 | joined | calls made | of the direct ones |");
    println!("|---:|---:|---:|---:|---:|---:|");
    for writes in [0.0, 0.005, 0.01, 0.02, 0.05] {
        row(&format!("{:.1} %", writes * 100.0), &spent(Day { writes, ..day }));
    }
    println!("\n| per second | exponent | from memory | 304 | joined | calls made | of the direct ones |");
    println!("|---:|---:|---:|---:|---:|---:|---:|");
    for per_second in [10, 100, 500] {
        for exponent in [0.8, 1.0, 1.2] {
            row(&format!("{per_second} | {exponent:.1}"), &spent(Day { per_second, exponent, ..day }));
        }
    }
}

fn row(name: &str, book: &Book) {
    let [memory, unchanged, joined] = [0, 1, 2].map(|way| book.by(way) * 100.0);
    let share = book.share() * 100.0;
    println!("| {name} | {memory:.1} % | {unchanged:.1} % | {joined:.1} % | {} | {share:.1} % |", book.paid);
}

fn spent(day: Day) -> Book {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (book, world) = spend(day).await;
        // The gateway counted what Salesforce did.
        let spent: u64 = world.telemetry.status().callers.iter().map(|caller| caller.api_calls_spent).sum();
        assert!(spent >= book.paid && spent - book.paid <= 1, "{spent} counted, {} charged", book.paid);
        book
    })
}
