//! `weirkeeper simulate`: the simulated Salesforce alone, for trying clients and gateways against.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::sim::{Sim, SimConfig};

/// The arguments of `simulate`.
#[derive(Debug, clap::Args)]
pub struct SimulateArguments {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// Simulated seconds for each real second.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// Seed of data and chance; the same seed gives the same org.
    #[arg(long)]
    seed: Option<u64>,
    /// Calls allowed in 24 hours.
    #[arg(long)]
    daily_limit: Option<u64>,
    /// Records of each object.
    #[arg(long)]
    records: Option<usize>,
    /// YAML file with everything that can be chosen.
    #[arg(long)]
    config: Option<PathBuf>,
}

/// Runs the simulator until it is interrupted.
pub fn run(arguments: &SimulateArguments) -> Result<(), String> {
    let config = settings(arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start a runtime: {error}"))?;
    runtime.block_on(async {
        let sim = Sim::new(config);
        let listening = sim.listen(arguments.listen).await.map_err(|error| error.to_string())?;
        super::say(&format!(
            "simulated Salesforce at http://{}\nlimit of {} calls in 24 hours; control and counts under /__sim/",
            listening.local_addr,
            sim.counts().limit
        ));
        for user in &sim.config().users {
            super::say(&format!("user {:<28} token {}", user.username, user.token));
        }
        super::stop_signal().await.map_err(|error| error.to_string())?;
        let counts = sim.counts();
        super::say(&format!("{} requests, {} calls charged", counts.requests, counts.charged));
        Ok(())
    })
}

fn settings(arguments: &SimulateArguments) -> Result<SimConfig, String> {
    let mut config = match &arguments.config {
        None => SimConfig::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            serde_saphyr::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?
        }
    };
    if !(arguments.speed.is_finite() && arguments.speed > 0.0) {
        return Err("--speed must be a positive number".to_owned());
    }
    config.speed = arguments.speed;
    config.seed = arguments.seed.unwrap_or(config.seed);
    config.records = arguments.records.unwrap_or(config.records);
    if let Some(limit) = arguments.daily_limit {
        config.daily.limit = limit;
    }
    Ok(config)
}
