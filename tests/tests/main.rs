//! The managers of many processes, over the memory driver: what users and the worst night do to
//! them. One program, since each takes seconds to build.

mod callers_api;
mod callers_lost;
mod in_process;
mod manager;
mod reader;
mod worst_night_callers;
mod worst_night_close;
mod worst_night_death;
mod worst_night_grants;
mod worst_night_handles;
mod worst_night_load;
mod worst_night_lost_answers;
mod worst_night_news;
mod worst_night_options;
mod worst_night_orderly_end;
mod worst_night_retries;
mod worst_night_sessions;
mod worst_night_sweeps;
