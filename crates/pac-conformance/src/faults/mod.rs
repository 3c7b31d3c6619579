//! Drivers that do to another driver's answers what networks, crashes and bugs do.

mod broken;
mod conflicts;
mod distant;
mod gate;
mod hints;
mod layer;
mod lost_answer;
mod outage;
mod remote;
mod slow;

pub use broken::{Breakage, BrokenRepositories};
pub use conflicts::Conflicts;
pub use distant::Distant;
pub use gate::Gate;
pub use hints::{Hints, HintsLost};
pub use layer::{Fault, Faulty};
pub use lost_answer::{Lost, LostAnswer};
pub use outage::Outage;
pub use remote::{KeepAlivePanics, Remote};
pub use slow::Slow;
