//! A mutex and a condition over pthreads: the same on Linux and macOS, and with nothing but libc behind them.

const std = @import("std");

pub const Mutex = struct {
    inner: std.c.pthread_mutex_t = .{},

    pub fn lock(mutex: *Mutex) void {
        _ = std.c.pthread_mutex_lock(&mutex.inner);
    }
    pub fn unlock(mutex: *Mutex) void {
        _ = std.c.pthread_mutex_unlock(&mutex.inner);
    }
};

pub const Condition = struct {
    inner: std.c.pthread_cond_t = .{},

    pub fn wait(condition: *Condition, mutex: *Mutex) void {
        _ = std.c.pthread_cond_wait(&condition.inner, &mutex.inner);
    }
    pub fn broadcast(condition: *Condition) void {
        _ = std.c.pthread_cond_broadcast(&condition.inner);
    }
};

/// Nanoseconds on the monotonic clock.
pub fn now() u64 {
    var time: std.c.timespec = undefined;
    _ = std.c.clock_gettime(.MONOTONIC, &time);
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}
