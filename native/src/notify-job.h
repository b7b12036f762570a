// A job of the notify pool (pool.h), and how one is begun.
#pragma once

#include <node_api.h>

#include "environment.h"
#include "pool.h"

namespace coverlay {

class NotifyPoolJob : public Job {
 public:
  // Instead of `run`: no thread could be had.
  virtual void fail(int error) = 0;
};

// A promise of what the job settles to.
inline napi_value submitNotify(napi_env env, NotifyPoolJob* job) {
  Environment* environment = Environment::of(env);
  napi_value promise = environment->begin(job);
  if (promise == nullptr) return nullptr;
  int refused = notifyPool().submit(job);
  if (refused != 0) {
    job->fail(refused);
    environment->finish(job);
  }
  return promise;
}

}  // namespace coverlay
