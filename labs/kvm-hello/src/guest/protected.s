# 32-bit protected mode, also with paging on: the same bytes run in both.
        mov     dx, 0x3f8
        mov     esi, offset protected_message
protected_next:
        lodsb                           # al = *esi++
        test    al, al
        jz      protected_compute
        out     dx, al
        jmp     protected_next
protected_compute:
        mov     eax, 6
        mov     ecx, 7
        mul     ecx
        mov     [0x400], eax
        hlt
guest_protected_data:
protected_message_:
        .asciz  "Hello from 32 bits\n"
        .set    protected_message, 0x1000 + protected_message_ - guest_protected
