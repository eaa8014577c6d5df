# The web page is part of the program.
foreach(part html css js)
  string(TOUPPER ${part} upper)
  file(READ ${dir}/web/page.${part} KRAIT_PAGE_${upper})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${dir}/web/page.${part})
endforeach()
configure_file(${dir}/web/page.cc.in ${CMAKE_BINARY_DIR}/generated/page.cc @ONLY)
target_sources(krait_${name} PRIVATE ${CMAKE_BINARY_DIR}/generated/page.cc)
