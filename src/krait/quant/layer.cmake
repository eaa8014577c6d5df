# The search loops are plain code for the vectoriser.
set_source_files_properties(${dir}/encode_small.cc ${dir}/encode_super.cc PROPERTIES COMPILE_OPTIONS -O3)
