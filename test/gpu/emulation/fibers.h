// What an emulated kernel needs of `fibers.cpp`, and how it is found by the stand-in.

#pragma once

namespace emulation {

/** Which thread runs, and in what launch. */
struct Position {
  int thread, threads;
  unsigned block[3], blocks[3];
};
extern Position now;
/** The launch's shared bytes, at a multiple of 1024. */
extern unsigned char* dynamic_shared;

/** A place in a kernel where threads wait for each other. */
struct Site {
  const char* what;
  const char* file;
  int line;
};
/** As a default argument: where the function that has it is called. */
constexpr Site here(const char* what, const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {what, file, line}; }

void wait_for_block(const Site& site);
/** Waits for all lanes of the warp. The last to arrive calls `act` with what each gave; then all go on. */
void wait_for_warp(const Site& site, void* own, void (*act)(void** lanes));

/** Aligned bytes, zeros when `from` is null; they are there after `copies_landed`. */
void copy(void* to, const void* from, unsigned bytes);
void copies_landed();
/** Aligned bytes of the launch's shared memory. */
void* shared_bytes(unsigned at, unsigned bytes);
/** A thread looks at a word that another block may write; fails when it does so without end. */
void look(const Site& site, const void* word);

/** Ends the launch with a sentence. */
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

/** A member without size whose copy is a function, because the compiler's checks of alignment leave plain copies out. */
struct Checked {
  Checked() = default;
  Checked(const Checked&) {}
  Checked& operator=(const Checked&) { return *this; }
};

/** A kernel by name, and how to call it with parameters as a driver gets them. */
struct Kernel {
  const char* name;
  unsigned warp;
  unsigned threads_max;
  unsigned parameter_count;
  const unsigned* parameter_bytes;
  void (*call)(const Kernel& kernel, void* const* parameters);
  void (*function)();
  const Kernel* next;

  template <typename... P> Kernel(const char* name, unsigned warp, unsigned threads_max, void (*function)(P...)) : name(name), warp(warp), threads_max(threads_max), parameter_count(sizeof...(P)), function((void (*)())function), next(first) {
    static constexpr unsigned bytes[] = {sizeof(P)...};
    parameter_bytes = bytes;
    call = [](const Kernel& kernel, void* const* parameters) { unpack<P...>(kernel, parameters, __make_integer_seq<Sequence, int, sizeof...(P)>()); };
    first = this;
  }

  static const Kernel* first;

private:
  template <typename T, T... i> struct Sequence {};
  template <typename... P, int... i> static void unpack(const Kernel& kernel, void* const* parameters, Sequence<int, i...>) {
    ((void (*)(P...))kernel.function)(*static_cast<const P*>(parameters[i])...);
  }
};

} // namespace emulation
