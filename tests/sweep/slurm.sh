#!/usr/bin/env bash
# slurm.sh BIN: a sweep as an array job of a Slurm that this script starts (munged, slurmctld, slurmd of the distribution's
# packages munge, slurmctld, slurmd, slurm-client) and stops again. Exit 77 (skipped) where they are not installed, or
# where slurmd cannot run (it needs root).
set -euo pipefail
bin=$1

for program in munged slurmctld slurmd sbatch sinfo scontrol; do
  PATH=$PATH:/usr/sbin command -v "$program" >/dev/null || { echo "skipped: no $program here (packages munge slurmctld slurmd slurm-client)"; exit 77; }
done
[ "$(id -u)" -eq 0 ] || { echo "skipped: slurmd needs root"; exit 77; }
export PATH=$bin:$PATH:/usr/sbin

work=$(mktemp -d /tmp/qwenbench-slurm.XXXXXX)
pids=()
stop() {  # only what this script started
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap stop EXIT
give_up() { echo "$1"; tail -n 20 "$work"/*.log 2>/dev/null || true; exit 1; }

# ---- munge: who sends a message ----
mkdir -m 755 "$work/munge"
dd if=/dev/urandom of="$work/munge/key" bs=1 count=1024 status=none
chmod 400 "$work/munge/key"
munged --foreground --force --key-file="$work/munge/key" --socket="$work/munge/socket" --pid-file="$work/munge/pid" \
  --log-file="$work/munge.log" --seed-file="$work/munge/seed" >"$work/munged.log" 2>&1 &
pids+=($!)

# ---- Slurm: one controller, one node, this machine ----
host=$(hostname -s)
port=$((20000 + RANDOM % 20000))
mkdir "$work/state" "$work/spool"
cat >"$work/slurm.conf" <<CONF
ClusterName=qwenbench
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket
CredType=cred/munge
SlurmctldPort=$port
SlurmdPort=$((port + 1))
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=test Nodes=$host Default=YES MaxTime=10 State=UP
CONF
export SLURM_CONF=$work/slurm.conf
slurmctld -D -f "$SLURM_CONF" >"$work/slurmctld.log" 2>&1 &
pids+=($!)
slurmd -D -f "$SLURM_CONF" -N "$host" >"$work/slurmd.log" 2>&1 &
pids+=($!)
for _ in $(seq 100); do
  sinfo -h -o %t 2>/dev/null | grep -qE '^(idle|mix)' && break
  sleep 0.2
done
sinfo -h -o %t 2>/dev/null | grep -qE '^(idle|mix)' || give_up "the node did not come up"

# ---- the sweep: one line ----
cat >"$work/sweep.json" <<'JSON'
{"model": "datasets/models/qwen3-vl-tiny", "load_format": "dummy",
 "engine": {"device": "cpu", "max_model_len": 512, "max_num_batched_tokens": 64, "block_size": 16, "cpu_kv_cache_gib": 0.02,
            "cpu_threads": 1},
 "variants": {"reference": {"kv_cache_dtype": "bfloat16"}},
 "workload": {"dataset": "random", "input_len": 8, "output_len": 4, "num_prompts": 2, "trials": 2, "warmup_prompts": 0},
 "quality": {"dataset": ""},
 "axes": {"engine.max_num_seqs": [2, 4], "engine.enable_prefix_caching": [false, true]}}
JSON
cd "$work"
# shellcheck disable=SC2016
sbatch --wait --array=1-3 --output="$work/job-%a.log" \
  --wrap 'qwenbench sweep ./sweep.json -q -o out --shard $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT' \
  >"$work/sbatch.log" 2>&1 || give_up "the array job failed"
cat "$work"/job-*.log
cells=$(find out/cells -name '*.json' | wc -l)
[ "$cells" -eq 4 ] || give_up "$cells of 4 cells have a result"
grep -hq '^share 3/3: 1 cells done' "$work/job-3.log" || give_up "share 3/3 did not run its one cell"
qwenbench sweep ./sweep.json -o out --merge
[ "$(grep -c ,done, out/summary.csv)" -eq 4 ] || give_up "the summary lacks cells"
echo "an array job of 3 shares: ok"
