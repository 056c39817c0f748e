// Linux: children begin with the settings of the thread that starts them, so the thread takes the settings that they are to
// have for as long as the start takes.
#include "os/children.hpp"

#include <dlfcn.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <iterator>

#include "base/thread_local.hpp"
#include "os/scheduling.hpp"
#include "os/symbol_hooks.hpp"

namespace rtpool::os {
namespace {

// Made by a thread's first section that sets anything, freed when the thread ends.
thread_local constinit ChildSettings* t_settings RTPOOL_THREAD_LOCAL = nullptr;
pthread_key_t g_key;
int g_key_error = 0;

bool is_plain(const ThreadScheduling& scheduling) noexcept {
  return scheduling.policy == Policy::other && scheduling.nice == 0;
}

bool same(const ThreadScheduling& a, const ThreadScheduling& b) noexcept {
  return a.policy == b.policy && a.priority == b.priority;
}

// While it lives, the calling thread runs at what its children are to begin with. Only what still is as the section has
// set it is changed: what the program has set itself meanwhile is its own, and its children's.
class OutsideStart {
 public:
  OutsideStart() noexcept {
    const ChildSettings* const settings = t_settings;
    if (settings == nullptr) return;
    const int error = errno;
    Scheduling& os = scheduling();
    if (settings->affinity && os.thread_affinity(&affinity_) == 0 && CPU_EQUAL(&affinity_, &settings->own_affinity)) {
      moved_ = os.set_thread_affinity(settings->child_affinity) == 0;
    }
    if (settings->scheduling && os.thread_scheduling(&scheduling_) == 0 && same(scheduling_, settings->own_scheduling)) {
      // The kernel does it by itself where plain children are wanted; so the thread keeps its priority.
      const bool by_kernel = scheduling_.reset_on_fork && is_plain(settings->child_scheduling);
      lowered_ = !by_kernel && os.set_thread_scheduling(settings->child_scheduling) == 0;
    }
    errno = error;
  }
  ~OutsideStart() {
    const int error = errno;
    if (lowered_) scheduling().set_thread_scheduling(scheduling_);
    if (moved_) scheduling().set_thread_affinity(affinity_);
    errno = error;
  }
  OutsideStart(const OutsideStart&) = delete;
  OutsideStart& operator=(const OutsideStart&) = delete;

 private:
  cpu_set_t affinity_;
  ThreadScheduling scheduling_;
  bool moved_ = false;
  bool lowered_ = false;
};

// --- The functions that start something -------------------------------------------------------------------------------

template <typename Function>
Function* original(const char* name) noexcept {
  // Another library may stand before libc (a sanitizer, a preloaded one): what the program itself would call.
  return reinterpret_cast<Function*>(::dlsym(RTLD_DEFAULT, name));
}

// Resolved before the hooks are installed; they never change.
decltype(&::pthread_create) g_pthread_create;
decltype(&::posix_spawn) g_posix_spawn;
decltype(&::posix_spawnp) g_posix_spawnp;
decltype(&::system) g_system;
decltype(&::popen) g_popen;
decltype(&::execve) g_execve;
decltype(&::execv) g_execv;
decltype(&::execvp) g_execvp;
decltype(&::execvpe) g_execvpe;

int hooked_pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*routine)(void*), void* argument) {
  const OutsideStart start;
  return g_pthread_create(thread, attributes, routine, argument);
}

int hooked_posix_spawn(pid_t* pid, const char* path, const posix_spawn_file_actions_t* actions,
                       const posix_spawnattr_t* attributes, char* const* argv, char* const* envp) {
  const OutsideStart start;
  return g_posix_spawn(pid, path, actions, attributes, argv, envp);
}

int hooked_posix_spawnp(pid_t* pid, const char* file, const posix_spawn_file_actions_t* actions,
                        const posix_spawnattr_t* attributes, char* const* argv, char* const* envp) {
  const OutsideStart start;
  return g_posix_spawnp(pid, file, actions, attributes, argv, envp);
}

FILE* hooked_popen(const char* command, const char* mode) {
  const OutsideStart start;
  return g_popen(command, mode);
}

int hooked_system(const char* command) {
  // It waits for the command to end, all the while at the settings of a child: the thread does nothing else.
  const OutsideStart start;
  return g_system(command);
}

// Before a program takes the place of this one. What calls it may be the child of a vfork, in the memory of its parent:
// only the settings of the task are changed, and set back if there is no such program.
int hooked_execve(const char* path, char* const* argv, char* const* envp) {
  const OutsideStart start;
  return g_execve(path, argv, envp);
}

int hooked_execv(const char* path, char* const* argv) {
  const OutsideStart start;
  return g_execv(path, argv);
}

int hooked_execvp(const char* file, char* const* argv) {
  const OutsideStart start;
  return g_execvp(file, argv);
}

int hooked_execvpe(const char* file, char* const* argv, char* const* envp) {
  const OutsideStart start;
  return g_execvpe(file, argv, envp);
}

template <typename Function>
void* address(Function* function) noexcept {
  return reinterpret_cast<void*>(function);
}

const SymbolHook k_hooks[] = {
    {"pthread_create", address(hooked_pthread_create)},
    {"posix_spawn", address(hooked_posix_spawn)},
    {"posix_spawnp", address(hooked_posix_spawnp)},
    {"system", address(hooked_system)},
    {"popen", address(hooked_popen)},
    {"execve", address(hooked_execve)},
    {"execv", address(hooked_execv)},
    {"execvp", address(hooked_execvp)},
    {"execvpe", address(hooked_execvpe)},
};

// In the child of a fork, whose only thread is a copy of the one that forked.
void begin_process() noexcept {
  if (t_settings == nullptr) return;
  const ChildSettings settings = *t_settings;
  *t_settings = {};
  if (settings.scheduling) scheduling().set_thread_scheduling(settings.child_scheduling);
  if (settings.affinity) scheduling().set_thread_affinity(settings.child_affinity);
}

bool resolve_originals() noexcept {
  g_pthread_create = original<decltype(::pthread_create)>("pthread_create");
  g_posix_spawn = original<decltype(::posix_spawn)>("posix_spawn");
  g_posix_spawnp = original<decltype(::posix_spawnp)>("posix_spawnp");
  g_system = original<decltype(::system)>("system");
  g_popen = original<decltype(::popen)>("popen");
  g_execve = original<decltype(::execve)>("execve");
  g_execv = original<decltype(::execv)>("execv");
  g_execvp = original<decltype(::execvp)>("execvp");
  g_execvpe = original<decltype(::execvpe)>("execvpe");
  return g_pthread_create != nullptr && g_posix_spawn != nullptr && g_posix_spawnp != nullptr && g_system != nullptr &&
         g_popen != nullptr && g_execve != nullptr && g_execv != nullptr && g_execvp != nullptr && g_execvpe != nullptr;
}

bool prepare_process() noexcept {
  g_key_error = ::pthread_key_create(&g_key, std::free);
  if (g_key_error == 0) g_key_error = ::pthread_atfork(nullptr, nullptr, begin_process);
  return resolve_originals();
}

}  // namespace

int exchange_child_settings(const ChildSettings& wanted, ChildSettings* before) noexcept {
  static const bool k_resolved = prepare_process();
  *before = t_settings == nullptr ? ChildSettings{} : *t_settings;
  const bool any = wanted.affinity || wanted.scheduling;
  if (t_settings == nullptr) {
    if (!any) return 0;
    if (g_key_error != 0) return g_key_error;
    auto* const made = static_cast<ChildSettings*>(std::malloc(sizeof(ChildSettings)));
    if (made == nullptr) return ENOMEM;
    *made = {};
    ::pthread_setspecific(g_key, made);
    t_settings = made;
  }
  *t_settings = wanted;
  if (!any) return 0;
  return k_resolved ? install_symbol_hooks(k_hooks, std::size(k_hooks)) : ENOSYS;
}

}  // namespace rtpool::os
