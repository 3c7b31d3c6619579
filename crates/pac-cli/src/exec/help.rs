//! What `pac exec --help` says below the options.

pub(crate) const AFTER_HELP: &str = "\
The command's standard streams are its own. In its environment it finds, beside what is in that of
`pac`,
  PAC_REPOSITORY     NS/NAME of the repository
  PAC_RUN            NS/NAME of the run that holds the slot
  PAC_LEASE          the session that holds it, as `pac status --output json` shows it
  PAC_FENCING_TOKEN  a number that grows with every grant of the repository: hand it to
                     what the command writes to, and have smaller ones refused there
  PAC_SLOT           the numbers of its slots, from 0 on, with commas between: the smallest that
                     were free, so that devices, ports or accounts can be shared by number; not
                     set where it takes more than 256
  PAC_SLOT_NAME      their names, where the repository names its slots (`pac limit --slots`)
  PAC_HELD           all slots that it runs in, as NS/NAME=NS/RUN#TOKEN with spaces between;
                     those above are of the repository that was named first
and not the passwords of the store: PAC_POSTGRESQL_URL, PAC_POSTGRESQL_PASSWORD, PAC_ETCD_PASSWORD
and ETCD_PASSWORD are taken out. A command that runs `pac` itself needs --keep-credentials, or
settings in files.

Several repositories: their slots are taken in the order of the names, whatever the order in which
they are given, so that of those who name all that they need nobody waits for one who waits for him; all
are given back when one is not had. What is held is said while the rest is waited for.
A `pac exec` inside a command that holds a slot of the same repository could wait for itself, and is
refused; so is one that waits without end for a repository whose name comes before one that is held.
With --reentrant it runs within the slots that are held, if the store says so when it starts, and cannot have more
of them; --run, --limit, --priority, --max-hold and the like say nothing of those. What has
slots of its own inside another `pac exec` has a process group of its own: say --contain to the outer
one, so that it ends with it in any case.

Limit: without --limit the one in force is used. With it, the limit is proposed: it is in force where nobody
else has set one, and no run counts on another proposal. Where another one is in force, that is said once,
with whose it is.

Weight: a run of several slots gets all of them in one step, and is waited for, not overtaken.
Groups: with --supersede, the waiting runs of the group end, and this one takes the place of the first of
them; with `all`, those that run are asked to end, too.

Three times, which are not the same. --wait-timeout is the patience of this process, from its start on. --max-wait
is kept by the store, from when the run is queued: the run leaves the queue then whether or not this process
lives. --max-hold is kept by the store from when it has its slots: then it is asked to end, and loses
them half a minute later.

Asked to end (`pac cancel --ask`, a run that supersedes it, --max-hold): the command gets SIGTERM, and SIGKILL
after --kill-grace. The slot is kept until it has ended, also where it cannot be killed, and the run ends as
cancelled, or as timed-out after --max-hold.

Signals: SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 reach the command; until it
starts, they end the waiting for a slot. At a terminal, what is typed (Ctrl-C) reaches the
command from the terminal alone. Without one, the command has a process group of its own, and
signals reach all of it.
If the session cannot be renewed, the command gets SIGTERM when no more than --kill-grace and a tenth
of the TTL are left of it, and SIGKILL before it is over, so that it has ended before anybody else may start. If the
lease is lost at once (`pac` was stopped for longer than that, the run was cancelled), the command
gets SIGTERM then, and SIGKILL after --kill-grace: for so long it may run beside the next one, and
what it writes to is guarded by the fencing token.
Should `pac` itself be killed, the command is killed at once (on Linux; what the command has
started is not), and the next waiter starts within the TTL plus two seconds.

What gets away: signals do not reach a command that changes its user, as by sudo or su, nor one
that leaves its process group, as by setsid or as daemons do. So neither is ended when the lease is
lost, it is asked to, or `pac` is killed: start them the other way round (`sudo pac exec …`), or let --contain see to
the second. What could not be ended is told by its process number, and the exit code is 71.
--contain ends all that descends from the command: when the lease is lost, should `pac` be killed,
and when the command ends, before the slot is given back. It needs Linux 5.3 and /proc, and no
privileges; a process of another user it cannot end, unless `pac` is root.

Exit codes: the command's own, or 128 + the signal that ended it; and
   2  wrong arguments, or more slots than there are
  69  the store is unavailable
  71  the lease was lost while the command ran, or what it started could not be ended
  73  another live run has this name
  75  no slot was had: --no-wait, --wait-timeout, --max-wait, --skip-if-waiting, --skip-if-running, or the
      run was superseded or cancelled while it waited
  76  the queue is full
  77  the store does not let us in
  78  wrong settings
 126  the command cannot be run
 127  there is no such command
 143  the run was asked to end while the command ran, whatever the command's own code was";
