//! A process on this machine, outside of the nodes, for as long as a cluster lives. It passes connections to the API server
//! on, since the machine itself has no way into the nodes' network; and it removes the cluster if whoever started it dies.

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
};

use anyhow::{Context, Result};
use clap::Args;

use super::{
    namespaces::{Namespaces, detached, own_program},
    plan::API_PORT,
    removal,
};

/// Written by its owner when the keeper shall outlive it.
const STAY: &str = "stay";

#[derive(Args, Debug)]
pub struct Options {
    /// Of the cluster. First, since running clusters are found by it.
    #[arg(long)]
    folder: PathBuf,
}

/// Holds a cluster: when this is dropped, also by a crash, the keeper removes the cluster.
#[derive(Debug)]
pub(super) struct Lifeline {
    pipe: ChildStdin,
    /// Where it listens.
    pub(super) api: SocketAddr,
}

impl Lifeline {
    /// Starts the keeper of a folder.
    pub(super) fn start(folder: &Path, log: &Path) -> Result<Self> {
        let mut command = Command::new(own_program());
        command.args(["cluster", "keep", "--folder"]).arg(folder);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(fs::File::create(log)?);
        let mut keeper = detached(&mut command).spawn().context("the cluster's keeper cannot be started")?;
        let mut address = String::new();
        BufReader::new(keeper.stdout.take().expect("stdout is piped")).read_line(&mut address)?;
        let api = address.trim().parse().with_context(|| {
            format!("the cluster's keeper does not listen: {}", fs::read_to_string(log).unwrap_or_default().trim())
        })?;
        Ok(Self { pipe: keeper.stdin.take().expect("stdin is piped"), api })
    }

    /// The cluster stays when this process ends.
    pub(super) fn let_stay(mut self) -> Result<()> {
        writeln!(self.pipe, "{STAY}").context("the cluster's keeper has ended")
    }
}

/// The keeper's own work.
pub(super) fn run(options: &Options) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?);
    io::stdout().flush()?;
    let folder = options.folder.clone();
    std::thread::spawn(move || relay(&listener, &folder));

    let mut said = String::new();
    io::stdin().read_line(&mut said)?;
    if said.trim() == STAY {
        // Until `down` kills it.
        loop {
            std::thread::park();
        }
    }
    removal::remove(&options.folder)
}

fn relay(listener: &TcpListener, folder: &Path) {
    for client in listener.incoming().flatten() {
        let folder = folder.to_path_buf();
        std::thread::spawn(move || {
            // A client whose connection ends at once tries again by itself.
            let _ = pass_on(&client, &folder);
        });
    }
}

fn pass_on(client: &TcpStream, folder: &Path) -> Result<()> {
    let node = Namespaces::find(&["--node", "node1"], folder).context("the first node is not there")?;
    let server = node.enter_network(|| TcpStream::connect((Ipv4Addr::LOCALHOST, API_PORT)))??;
    std::thread::scope(|scope| {
        scope.spawn(|| copy(client, &server));
        copy(&server, client);
    });
    Ok(())
}

/// Copies one direction, and passes its end on.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    // The other direction notices as well.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
