//! Streams that are in order and run their commands in their own thread: the disk's on any device, and compute, upload and
//! download where the device has no queues. On compute a pool of workers splits a command, elsewhere the thread is alone.

const abi = @import("../abi.zig");
const executor_module = @import("executor.zig");

const Executor = executor_module.Executor;
const Plan = executor_module.Plan;

/// A stream's thread: its commands of one plan after the other.
pub fn play(executor: *Executor, stream: abi.Stream) void {
    const pool = if (stream == .compute) &executor.compute_pool.pool else &executor.single_pool.pool;
    var next_id: u64 = 0;
    while (executor.nextPlan(next_id)) |plan| {
        for (plan.order[@intFromEnum(stream)]) |index| {
            for (plan.decoded.commands[index].waits) |id| waitUntilDone(executor, plan, id);
            executor.play(plan, index, pool);
        }
        next_id = plan.base + plan.states.len;
        executor.leave(plan);
    }
}

fn waitUntilDone(executor: *Executor, plan: *Plan, id: u64) void {
    // Most waits are for commands of the same plan that are done long since: no lock for those.
    if (id >= plan.base and executor_module.ended(plan.states[id - plan.base].load(.seq_cst))) return;
    executor.mutex.lock();
    defer executor.mutex.unlock();
    _ = executor.sleepers.fetchAdd(1, .seq_cst);
    defer _ = executor.sleepers.fetchSub(1, .seq_cst);
    while (!executor.failing.load(.seq_cst) and !executor_module.ended(executor.stateOf(id))) executor.changed.wait(&executor.mutex);
}
