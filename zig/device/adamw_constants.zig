//! AdamW's numbers of one step, rounded once from float64. They are computed here for every device, so that a block's weights
//! get the same bits wherever it lives: the CPU kernel and the GPU's launch function both take them.

const std = @import("std");

pub const AdamwConstants = extern struct {
    beta1_rest: f32,
    beta2: f32,
    beta2_rest: f32,
    decay: f32,
    step_size: f32,
    root_scale: f32,
    epsilon: f32,

    /// From the arguments of any AdamW op.
    pub fn of(op: anytype) AdamwConstants {
        const step: f64 = @floatFromInt(op.step);
        return .{
            .beta1_rest = @floatCast(1 - op.beta1),
            .beta2 = @floatCast(op.beta2),
            .beta2_rest = @floatCast(1 - op.beta2),
            .decay = @floatCast(1 - op.learning_rate * op.weight_decay),
            .step_size = @floatCast(op.learning_rate / (1 - std.math.pow(f64, op.beta1, step))),
            .root_scale = @floatCast(1 / @sqrt(1 - std.math.pow(f64, op.beta2, step))),
            .epsilon = @floatCast(op.epsilon),
        };
    }
};
