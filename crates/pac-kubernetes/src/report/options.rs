//! What is reported, and how often at most.

use std::time::Duration;

/// What a [`Reporter`](super::Reporter) writes, and how often at most.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReportOptions {
    /// Whether events are made. Default: yes.
    pub events: bool,
    /// How many requests about events there are in a second at most, on average. Default: 20.
    pub events_per_second: u32,
    /// How often the series of an event that repeats is written at most. Default: 1 min.
    pub series_interval: Duration,
    /// Whether positions are written. Default: yes.
    pub positions: bool,
    /// How many positions are written in a second at most, on average. Default: 10.
    pub positions_per_second: u32,
    /// How often the position of one run is written at most; the newest one is. Default: 10 s.
    pub position_interval: Duration,
    /// Whether an object is written for each Repository, which shows its queue. It needs the
    /// definition and the permission of
    /// [`Install::with_queues`](crate::install::Install::with_queues). Default: no.
    pub queues: bool,
    /// How many of these objects are written in a second at most, on average. Default: 10.
    pub queues_per_second: u32,
    /// How often the store is asked which queues have changed, and one object is written at most;
    /// the newest state is. Default: 10 s.
    pub queue_interval: Duration,
    /// How long one request may take. Default: 5 s.
    pub request_timeout: Duration,
    /// The process, as events name it: at most 128 characters. Default: the environment's
    /// `HOSTNAME`, which in a pod is its name.
    pub instance: String,
}

impl Default for ReportOptions {
    fn default() -> Self {
        let host = std::env::var("HOSTNAME").unwrap_or_default();
        let host: String = host.chars().take(128).collect();
        Self {
            events: true,
            events_per_second: 20,
            series_interval: Duration::from_secs(60),
            positions: true,
            positions_per_second: 10,
            position_interval: Duration::from_secs(10),
            queues: false,
            queues_per_second: 10,
            queue_interval: Duration::from_secs(10),
            request_timeout: Duration::from_secs(5),
            instance: if host.is_empty() {
                "pac-concurrency".to_owned()
            } else {
                host
            },
        }
    }
}

impl ReportOptions {
    /// With events, or without.
    #[must_use]
    pub fn with_events(mut self, events: bool) -> Self {
        self.events = events;
        self
    }

    /// With positions, or without.
    #[must_use]
    pub fn with_positions(mut self, positions: bool) -> Self {
        self.positions = positions;
        self
    }

    /// With another rate of requests about events; at least 1 a second.
    #[must_use]
    pub fn with_events_per_second(mut self, requests: u32) -> Self {
        self.events_per_second = requests.max(1);
        self
    }

    /// With another interval between two writes of one event's series.
    #[must_use]
    pub fn with_series_interval(mut self, interval: Duration) -> Self {
        self.series_interval = interval;
        self
    }

    /// With another rate of positions; at least 1 a second.
    #[must_use]
    pub fn with_positions_per_second(mut self, requests: u32) -> Self {
        self.positions_per_second = requests.max(1);
        self
    }

    /// With another interval between two writes of one run's position.
    #[must_use]
    pub fn with_position_interval(mut self, interval: Duration) -> Self {
        self.position_interval = interval;
        self
    }

    /// With an object for each Repository that shows its queue, or without.
    #[must_use]
    pub fn with_queues(mut self, queues: bool) -> Self {
        self.queues = queues;
        self
    }

    /// With another rate of objects that show queues; at least 1 a second.
    #[must_use]
    pub fn with_queues_per_second(mut self, requests: u32) -> Self {
        self.queues_per_second = requests.max(1);
        self
    }

    /// With another interval between two writes of the object that shows one queue.
    #[must_use]
    pub fn with_queue_interval(mut self, interval: Duration) -> Self {
        self.queue_interval = interval;
        self
    }
}
