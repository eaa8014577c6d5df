# Instruction-set variants: isa/*.cc is compiled once for each, into namespace krait::<variant> (macro KRAIT_ISA).
# Always optimised: every inline function of a foreign header must really be inlined here, or its copy compiled with
# these flags could be the one the linker keeps for the whole program.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  file(GLOB isa_sources CONFIGURE_DEPENDS ${dir}/isa/*.cc)
  list(FILTER isa_sources EXCLUDE REGEX "_(test|bench|fuzz|probe)\\.cc$")
  # What gains from the BF16 and VNNI instructions; that set takes its other kernels from avx512.
  set(bf16_sources ${isa_sources})
  list(FILTER bf16_sources INCLUDE REGEX "/(kernel_set|int8[a-z0-9_]*|matmul[a-z0-9_]*|roofline)\\.cc$")
  list(FILTER bf16_sources EXCLUDE REGEX "_grad\\.cc$")

  set(avx2_flags -mavx2 -mfma -mf16c -mbmi2)
  set(avx512_flags ${avx2_flags} -mavx512f -mavx512bw -mavx512dq -mavx512vl)
  set(avx512_bf16_flags ${avx512_flags} -mavx512bf16 -mavx512vnni)

  function(krait_isa_options target isa)
    target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR}/src)
    target_compile_definitions(${target} PRIVATE KRAIT_ISA=${isa})
    target_compile_options(${target} PRIVATE -O2 ${${isa}_flags})
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      # False alarms of g++ 12 on _mm512_undefined_ps() and friends.
      target_compile_options(${target} PRIVATE -Wno-uninitialized -Wno-maybe-uninitialized)
    endif()
  endfunction()

  foreach(isa avx2 avx512 avx512_bf16)
    set(variant krait_cpu_${isa})
    if(isa STREQUAL avx512_bf16)
      add_library(${variant} OBJECT ${bf16_sources})
    else()
      add_library(${variant} OBJECT ${isa_sources})
    endif()
    krait_isa_options(${variant} ${isa})
    if(KRAIT_TESTS AND NOT isa STREQUAL avx512_bf16)  # makes inline functions of isa/ visible to their tests
      file(GLOB probes CONFIGURE_DEPENDS ${dir}/isa/*_probe.cc)
      add_library(${variant}_probe OBJECT ${probes})
      krait_isa_options(${variant}_probe ${isa})
      list(APPEND tests $<TARGET_OBJECTS:${variant}_probe>)
    endif()
    target_sources(krait_backends_cpu PRIVATE $<TARGET_OBJECTS:${variant}>)
    if(KRAIT_TESTS AND NOT KRAIT_SANITIZE)
      add_test(NAME backends_cpu.symbols_of_${isa}
               COMMAND ${CMAKE_COMMAND} -DNM=${CMAKE_NM} "-DOBJECTS=$<TARGET_OBJECTS:${variant}>" -DISA=${isa}
                       -P ${dir}/check_symbols.cmake)
    endif()
  endforeach()
endif()
