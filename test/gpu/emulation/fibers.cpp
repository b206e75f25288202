// Runs a launch of a kernel that was compiled for the CPU with `gpu.cuh` beside this file: blocks one after the other, the threads
// of a block as fibers of one operating system's thread. `emulated_launch` at the end is what the stand-in calls, one at a time.

#include "fibers.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

namespace emulation {

constexpr int threads_most = 1024, warp_least = 32, warp_most = 64;
constexpr size_t stack_bytes = 128 << 10, guard_bytes = 16 << 10; // pages have up to 16 KiB
constexpr size_t dynamic_most = 228 << 10, canary_bytes = 4 << 10;
/** Of shared memory that nobody has written: NaN in every format. */
constexpr int poison = 0xff;

Position now;
alignas(1024) static unsigned char dynamic_memory[dynamic_most + canary_bytes];
unsigned char* dynamic_shared = dynamic_memory;
const Kernel* Kernel::first;

// All static shared memory of all kernels.
#if defined(__APPLE__)
extern "C" unsigned char shared_start __asm("section$start$__DATA$emulated"), shared_end __asm("section$end$__DATA$emulated");
#else
extern "C" unsigned char shared_start __asm("__start_emulated"), shared_end __asm("__stop_emulated");
#endif

// ---- fibers -----------------------------------------------------------------------------------------------------------

/** Leaves the stack of the caller, whose pointer is put to `from`, for another one. */
__attribute__((naked)) static void switch_stack(void** from, void* to) {
#if defined(__x86_64__)
  asm("pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15\n"
      "movq %rsp, (%rdi); movq %rsi, %rsp\n"
      "popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp; retq");
#elif defined(__aarch64__)
  asm("sub sp, sp, #160\n"
      "stp d8, d9, [sp, #0]; stp d10, d11, [sp, #16]; stp d12, d13, [sp, #32]; stp d14, d15, [sp, #48]\n"
      "stp x19, x20, [sp, #64]; stp x21, x22, [sp, #80]; stp x23, x24, [sp, #96]; stp x25, x26, [sp, #112]\n"
      "stp x27, x28, [sp, #128]; stp x29, x30, [sp, #144]\n"
      "mov x9, sp; str x9, [x0]; mov sp, x1\n"
      "ldp d8, d9, [sp, #0]; ldp d10, d11, [sp, #16]; ldp d12, d13, [sp, #32]; ldp d14, d15, [sp, #48]\n"
      "ldp x19, x20, [sp, #64]; ldp x21, x22, [sp, #80]; ldp x23, x24, [sp, #96]; ldp x25, x26, [sp, #112]\n"
      "ldp x27, x28, [sp, #128]; ldp x29, x30, [sp, #144]\n"
      "add sp, sp, #160; ret");
#else
#error "switch_stack is written for x86_64 and aarch64"
#endif
}
#if defined(__x86_64__)
constexpr int words_saved = 8, return_word = 6; // six registers, where to go, and nowhere to return to
#else
constexpr int words_saved = 20, return_word = 19;
#endif

struct Copy {
  void* to;
  const void* from;
  unsigned bytes;
};

enum State { ready, at_warp, at_block, ended };

struct Fiber {
  void* stack;
  State state;
  Site site; // where it waits
  int copies;
  Copy pending[64];
};
static Fiber fibers[threads_most];

/** The lanes of a warp that wait for the others, and what they gave. */
struct Gathering {
  int arrived;
  Site site;
  void* given[warp_most];
};
static Gathering gatherings[threads_most / warp_least];
static void* scheduler;

static const Kernel* kernel;
static int warp;
static void* const* parameters;
static bool late_copies;
static char message[512];

static void leave(Fiber& fiber) { switch_stack(&fiber.stack, scheduler); }

static void run_thread() {
  kernel->call(*kernel, parameters);
  Fiber& fiber = fibers[now.thread];
  fiber.state = ended;
  leave(fiber);
}

static void start(int thread) {
  static unsigned char* stacks;
  if (stacks == nullptr) {
    stacks = static_cast<unsigned char*>(mmap(nullptr, threads_most * stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (stacks == MAP_FAILED) __builtin_trap();
    for (int i = 0; i < threads_most; i++) mprotect(stacks + i * stack_bytes, guard_bytes, PROT_NONE);
  }
  void** top = reinterpret_cast<void**>(stacks + (thread + 1) * stack_bytes) - words_saved;
  memset(top, 0, words_saved * sizeof(void*));
  top[return_word] = reinterpret_cast<void*>(run_thread);
  Fiber& fiber = fibers[thread];
  fiber.stack = top, fiber.state = ready, fiber.copies = 0;
}

static void describe(const char* format, va_list values) {
  const int length = vsnprintf(message, sizeof message, format, values);
  if (length < (int)sizeof message)
    snprintf(message + length, sizeof message - length, " (block %u %u %u, thread %d of %d)", now.block[0], now.block[1], now.block[2], now.thread, now.threads);
}
static void report(const char* format, ...) {
  va_list values;
  va_start(values, format);
  describe(format, values);
  va_end(values);
}
void fail(const char* format, ...) {
  va_list values;
  va_start(values, format);
  describe(format, values);
  va_end(values);
  leave(fibers[now.thread]); // and never come back
  __builtin_unreachable();
}

static const char* file_of(const Site& site) {
  const char* slash = strrchr(site.file, '/');
  return slash ? slash + 1 : site.file;
}
static bool same(const Site& a, const Site& b) { return a.line == b.line && (a.file == b.file || strcmp(a.file, b.file) == 0); }

// ---- what kernels call ------------------------------------------------------------------------------------------------

void wait_for_block(const Site& site) {
  Fiber& fiber = fibers[now.thread];
  fiber.site = site, fiber.state = at_block;
  leave(fiber);
}

void wait_for_warp(const Site& site, void* own, void (*act)(void** lanes)) {
  Gathering& gathering = gatherings[now.thread / warp];
  if (gathering.arrived == 0) gathering.site = site;
  else if (!same(gathering.site, site))
    fail("lane %d comes to %s in %s:%d, others of its warp wait for %s in %s:%d", now.thread % warp, site.what, file_of(site), site.line, gathering.site.what, file_of(gathering.site), gathering.site.line);
  gathering.given[now.thread % warp] = own;
  Fiber& fiber = fibers[now.thread];
  if (++gathering.arrived < warp) {
    fiber.site = site, fiber.state = at_warp;
    return leave(fiber);
  }
  gathering.arrived = 0;
  act(gathering.given);
  for (int lane = 0; lane < warp; lane++) fibers[now.thread / warp * warp + lane].state = ready;
}

static void perform(const Copy& copy) {
  if (copy.from) memcpy(copy.to, copy.from, copy.bytes);
  else memset(copy.to, 0, copy.bytes);
}
void copy(void* to, const void* from, unsigned bytes) {
  if ((reinterpret_cast<size_t>(to) | reinterpret_cast<size_t>(from)) % bytes != 0) fail("an asynchronous copy of %u bytes from or to an address that is not a multiple of that", bytes);
  Fiber& fiber = fibers[now.thread];
  if (late_copies && fiber.copies < (int)(sizeof fiber.pending / sizeof(Copy))) fiber.pending[fiber.copies++] = {to, from, bytes};
  else perform({to, from, bytes});
}
void copies_landed() {
  Fiber& fiber = fibers[now.thread];
  for (int i = 0; i < fiber.copies; i++) perform(fiber.pending[i]);
  fiber.copies = 0;
}

static unsigned dynamic_bytes;

void* shared_bytes(unsigned at, unsigned bytes) {
  if (at % bytes != 0 || at + bytes > dynamic_bytes) fail("%u bytes are read or written at byte %u of %u of shared memory", bytes, at, dynamic_bytes);
  return dynamic_shared + at;
}

void look(const Site& site, const void* word) {
  constexpr int looks_most = 1000;
  static const void* looked_at;
  static int thread, looks;
  looks = word == looked_at && thread == now.thread ? looks + 1 : 0;
  looked_at = word, thread = now.thread;
  if (looks > looks_most) fail("%s in %s:%d is looked at for ever: no block that writes it came before", site.what, file_of(site), site.line);
}

// ---- turns --------------------------------------------------------------------------------------------------------------

/** Numbers 0 to count - 1: in order, backwards, or from anywhere in steps that have no factor in common with `count`. */
struct Turns {
  unsigned count;
  unsigned long long first, step;
  unsigned operator[](unsigned i) const { return (unsigned)((first + i * step) % count); }
};
static unsigned long long random_state;
static unsigned long long draw() { // splitmix64
  unsigned long long z = random_state += 0x9e3779b97f4a7c15;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}
enum Order { forwards, backwards, anyhow };
static Turns turns(unsigned count, Order order) {
  if (order == forwards) return {count, 0, 1};
  if (order == backwards) return {count, count - 1, count > 1 ? count - 1 : 1};
  unsigned long long step = 1 + draw() % count;
  const auto common = [](unsigned long long a, unsigned long long b) {
    while (b != 0) {
      const unsigned long long rest = a % b;
      a = b, b = rest;
    }
    return a;
  };
  while (common(step, count) != 1) step++;
  return {count, draw() % count, step};
}

/** Until every lane waits at a barrier or has ended; false when one never will. */
static bool run_warp(int first, const unsigned* lanes) {
  for (bool any = true; any;) {
    any = false;
    for (int i = 0; i < warp; i++) {
      now.thread = first + (int)lanes[i];
      if (fibers[now.thread].state != ready) continue;
      any = true;
      switch_stack(&scheduler, fibers[now.thread].stack);
      if (message[0] != 0) return false;
    }
  }
  for (int lane = 0; lane < warp; lane++) {
    const Fiber& fiber = fibers[first + lane];
    if (fiber.state != at_warp) continue;
    int absent = 0;
    while (fibers[first + absent].state == at_warp) absent++;
    now.thread = first + lane;
    report("lane %d waits for %s in %s:%d, to which lane %d does not come: it %s", lane, fiber.site.what, file_of(fiber.site), fiber.site.line, absent, fibers[first + absent].state == ended ? "has ended" : "waits for the block");
    return false;
  }
  return true;
}

static bool run_block(Order order) {
  memset(&shared_start, poison, &shared_end - &shared_start);
  memset(dynamic_shared, poison, dynamic_bytes + canary_bytes);
  for (int thread = 0; thread < now.threads; thread++) start(thread);
  for (Gathering& gathering : gatherings) gathering.arrived = 0;
  unsigned lanes[warp_most];
  const Turns turn = turns(warp, order);
  for (int i = 0; i < warp; i++) lanes[i] = turn[i];
  for (;;) {
    const Turns warps = turns(now.threads / warp, order);
    for (unsigned i = 0; i < warps.count; i++)
      if (!run_warp((int)warps[i] * warp, lanes)) return false;
    const Fiber& one = fibers[0];
    for (now.thread = 1; now.thread < now.threads; now.thread++) {
      const Fiber& other = fibers[now.thread];
      if (one.state != other.state) {
        const Fiber& waiting = one.state == at_block ? one : other;
        report("%s in %s:%d is not reached by all threads: some have ended", waiting.site.what, file_of(waiting.site), waiting.site.line);
        return false;
      }
      if (one.state == at_block && !same(one.site, other.site)) {
        report("threads of a block wait at different barriers, in %s:%d and in %s:%d", file_of(one.site), one.site.line, file_of(other.site), other.site.line);
        return false;
      }
    }
    if (one.state == ended) break;
    for (int thread = 0; thread < now.threads; thread++) fibers[thread].state = ready;
  }
  for (size_t i = 0; i < canary_bytes; i++)
    if (dynamic_shared[dynamic_bytes + i] != poison) {
      report("byte %zu behind the launch's %u bytes of shared memory was written", i, dynamic_bytes);
      return false;
    }
  return true;
}

/** Null, or a sentence about what went wrong. `number` is how often the kernel was launched before, and chooses the order of turns. */
extern "C" const char* emulated_launch(const Kernel* wanted, const unsigned* blocks, unsigned threads, unsigned shared_bytes, void* const* values, unsigned number, unsigned long long seed) {
  kernel = wanted, warp = (int)wanted->warp, parameters = values, dynamic_bytes = shared_bytes;
  now = {0, (int)threads, {0, 0, 0}, {blocks[0], blocks[1], blocks[2]}};
  message[0] = 0;
  random_state = seed + number;
  const Order order = (Order)(number % 3);
  late_copies = order != forwards;
  if (threads == 0 || threads % warp != 0 || threads > kernel->threads_max) report("a block of %u threads; the kernel takes whole warps of %d and at most %u", threads, warp, kernel->threads_max);
  else if (shared_bytes > dynamic_most) report("%u bytes of shared memory; there are %zu", shared_bytes, dynamic_most);
  else {
    const unsigned long long plane = (unsigned long long)blocks[0] * blocks[1];
    const Turns turn = turns((unsigned)(plane * blocks[2]), order);
    for (unsigned i = 0; i < turn.count; i++) {
      const unsigned block = turn[i];
      now.block[0] = block % blocks[0], now.block[1] = (unsigned)(block % plane) / blocks[0], now.block[2] = (unsigned)(block / plane);
      if (!run_block(order)) break;
    }
  }
  return message[0] == 0 ? nullptr : message;
}

extern "C" const Kernel* emulated_kernel(const char* name, unsigned warp) {
  for (const Kernel* one = Kernel::first; one; one = one->next)
    if (one->warp == warp && strcmp(one->name, name) == 0) return one;
  return nullptr;
}

// What -fsanitize=alignment,array-bounds,shift,integer-divide-by-zero calls.
extern "C" void __ubsan_handle_type_mismatch_minimal_abort() { fail("an address is not aligned for what is read or written there"); }
extern "C" void __ubsan_handle_out_of_bounds_minimal_abort() { fail("an index lies outside its array"); }
extern "C" void __ubsan_handle_shift_out_of_bounds_minimal_abort() { fail("a shift by more bits than the value has"); }
extern "C" void __ubsan_handle_divrem_overflow_minimal_abort() { fail("a division by zero"); }

} // namespace emulation
