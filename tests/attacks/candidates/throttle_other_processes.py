"""Changes the priority, the processors and the limits of processes that are not its own."""

import os
import resource

from attack import VICTIM, attempt, system_call

IOPRIO_SET, IOPRIO_IDLE = 251, 3 << 13
SCHED_IDLE = os.sched_param(0)

for process in (VICTIM["server"], VICTIM["bystander"]):
    attempt("a lower priority", lambda process=process: os.setpriority(os.PRIO_PROCESS, process, 7))
    attempt("the idle scheduler", lambda process=process: os.sched_setscheduler(process, os.SCHED_IDLE, SCHED_IDLE))
    attempt("one processor", lambda process=process: os.sched_setaffinity(process, {min(os.sched_getaffinity(0))}))
    attempt("a limit", lambda process=process: resource.prlimit(process, resource.RLIMIT_NOFILE, (16, 16)) and None)
    attempt("a lower priority on disks", lambda process=process: system_call(IOPRIO_SET, 1, process, IOPRIO_IDLE))
