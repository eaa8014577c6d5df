// The tasks, each described and made in a file of its family.
#pragma once
#include "krait/data/tasks/task.h"

namespace krait::data {

TaskInfo selective_copying_task();
TaskInfo copying_task();
TaskInfo induction_heads_task();
TaskInfo mqar_task();
TaskInfo needle_task();
TaskInfo parity_task();
TaskInfo modular_arithmetic_task();

}  // namespace krait::data
