//! The host stream: among the commands whose waits are done, of all plans, the one with the earliest deadline runs next, split
//! over all workers.

const std = @import("std");
const abi = @import("../abi.zig");
const executor_module = @import("executor.zig");

const Executor = executor_module.Executor;
const Plan = executor_module.Plan;
const allocator = std.heap.c_allocator;

pub fn play(executor: *Executor) void {
    var next_id: u64 = 0;
    var waiting: std.ArrayList(Waiting) = .empty;
    defer waiting.deinit(allocator);
    while (true) {
        executor.mutex.lock();
        _ = executor.sleepers.fetchAdd(1, .seq_cst); // before the look: what changes after it wakes this thread
        const chosen = while (true) {
            const known_below = next_id; // slots are reused, so plans do not lie in the order of their ids
            for (executor.plans) |slot| if (slot) |plan| {
                if (plan.base < known_below) continue;
                next_id = @max(next_id, plan.base + plan.states.len);
                for (plan.order[@intFromEnum(abi.Stream.host)]) |index| {
                    const deadline = plan.decoded.commands[index].deadline;
                    waiting.append(allocator, .{ .plan = plan, .index = index, .id = plan.base + index, .deadline = deadline }) catch @panic("out of memory");
                }
            };
            if (earliest(executor, waiting.items)) |position| break position;
            if (executor.stopping) break null;
            executor.changed.wait(&executor.mutex);
        };
        _ = executor.sleepers.fetchSub(1, .seq_cst);
        executor.mutex.unlock();
        const position = chosen orelse return;
        const entry = waiting.swapRemove(position);
        _ = entry.plan.visitors.fetchAdd(1, .acq_rel);
        executor.play(entry.plan, entry.index, &executor.host_pool.pool);
        executor.leave(entry.plan);
    }
}

const Waiting = struct {
    plan: *Plan,
    index: u32,
    id: u64,
    deadline: u32,
    waits_done: u32 = 0,

    fn sooner(a: Waiting, b: Waiting) bool {
        return if (a.deadline != b.deadline) a.deadline < b.deadline else a.id < b.id;
    }
};

/// Among the commands whose waits are done: the lowest deadline, then the lowest id. All are ready when a step fails.
fn earliest(executor: *Executor, waiting: []Waiting) ?usize {
    const failing = executor.failing.load(.acquire);
    var best: ?usize = null;
    for (waiting, 0..) |*entry, position| {
        // Thousands may wait: their commands are looked at last.
        if (best) |other| if (!entry.sooner(waiting[other])) continue;
        const waits = entry.plan.decoded.commands[entry.index].waits;
        while (!failing and entry.waits_done < waits.len and executor_module.ended(executor.stateOf(waits[entry.waits_done]))) entry.waits_done += 1;
        if (failing or entry.waits_done == waits.len) best = position;
    }
    return best;
}
