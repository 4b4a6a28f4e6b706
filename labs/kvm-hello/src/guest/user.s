# 64-bit long mode with two rings. Loaded at 0x1000 (a kernel page); user_main is at 0x2000 (a user page).
        # Ring 0: build the frame that iretq pops, and step down to ring 3.
        push    0x23                    # ss: user data, privilege 3
        push    0xb000                  # rsp
        push    0x2                     # rflags: IOPL 0, so ring 3 may not touch ports
        push    0x1b                    # cs: user code, privilege 3
        push    0x2000                  # rip: user_main
        iretq

        .org    0x100
# Vector 13, #GP: the user ran what only ring 0 may. Trap and emulate, as KVM does to us.
user_general_protection:
        push    rbx
        mov     rbx, [rsp + 16]         # the rip that faulted (rbx, error code, rip)
        cmp     byte ptr [rbx], 0xee    # out dx, al
        jne     user_halt
        out     dx, al                  # do it for the user: this is the exit that the host sees
        inc     qword ptr [rsp + 16]    # and go on behind the one-byte instruction
        pop     rbx
        add     rsp, 8                  # the error code is not popped by iretq
        iretq
user_halt:
        hlt                             # hlt from ring 3 comes here too

        .org    0x200
# Vector 14, #PF: the page is not there yet. Put it there, as a kernel does on first touch.
user_page_fault:
        push    rbx
        mov     rbx, cr2
        mov     [0x408], rbx            # the host looks here: which address faulted
        mov     rbx, [rsp + 8]
        mov     [0x410], rbx            # and with which error code: 6 is write + user
        or      byte ptr [0x13060], 0x67 # its page-table entry: present, writable, user, accessed, dirty
        invlpg  [0xc000]
        pop     rbx
        add     rsp, 8
        iretq                           # runs the same instruction again

        .org    0x1000                  # the next page, at 0x2000: ring 3 from here
user_main:
        mov     dx, 0x3f8
        lea     rsi, [rip + user_message]
user_next:
        lodsb
        test    al, al
        jz      user_compute
        out     dx, al                  # #GP in ring 3: vector 13
        jmp     user_next
user_compute:
        mov     eax, 6
        mov     ecx, 7
        mul     rcx
        mov     [0xc400], rax           # not mapped yet: #PF, vector 14, and again
        hlt                             # #GP again
guest_user_data:
user_message:
        .asciz  "Hello from ring 3\n"
