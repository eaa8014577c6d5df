# Fails when an object built for one instruction set defines a symbol outside its own namespace: the linker may keep
# that copy for the whole program, which then dies on a CPU without these instructions.
#   cmake -DNM=nm "-DOBJECTS=a.o;b.o" -DISA=avx512 -P check_symbols.cmake
foreach(object ${OBJECTS})
  execute_process(COMMAND ${NM} --defined-only --demangle --extern-only ${object} OUTPUT_VARIABLE symbols
                  COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX REPLACE "[;\n]" ";" symbols "${symbols}")
  foreach(symbol ${symbols})
    if(NOT symbol MATCHES "krait::${ISA}::|DW\\.ref|__(a|t|ub)san|__odr_asan|[.]kernel_")
      message(SEND_ERROR "${object}: ${symbol}")
    endif()
  endforeach()
endforeach()
